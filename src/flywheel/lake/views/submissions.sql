-- What raters submitted and still stands by itself: one row a judgement, earlier ones of a rater too.
--
-- Left out: discarded and failed judgements, those that say nothing, those about a whole
-- conversation, those of a judge run that is not valid (yet), and those another one supersedes (also
-- when that one is discarded: so a judgement is withdrawn). `item` is an interaction or, of a preference, a pair; `answer` is what two raters
-- must share to agree. `is_qualified` is false of a language model's judgement unless, at the time
-- it was made, a qualification stood for exactly that judge (its hash): one that came by a file or
-- by feedback has no hash, and so cannot claim to be a judge that qualified.
WITH standing AS (
    -- A qualification stands until it expires or the same judge is measured again.
    SELECT
        workload, judge_hash, qualified, created_at, expires_at,
        lead(created_at) OVER (
            PARTITION BY workload, judge_hash ORDER BY created_at, qualification_id
        ) AS replaced_at
    FROM qualifications
),
superseded AS (
    SELECT workload, supersedes AS assessment_id
    FROM assessments
    WHERE supersedes IS NOT NULL AND supersedes <> assessment_id AND status <> 'error'
),
submitted AS (
    SELECT
        *,
        coalesce(interaction_id, least(pair_ids ->> 0, pair_ids ->> 1) || ' ' || greatest(pair_ids ->> 0, pair_ids ->> 1)) AS item,
        source_type <> 'llm_judge' OR EXISTS (
            SELECT 1
            FROM standing
            WHERE standing.qualified
                AND standing.workload = assessments.workload
                AND standing.judge_hash = assessments.judge_prompt_hash
                AND standing.created_at <= assessments.created_at
                AND assessments.created_at < standing.expires_at
                AND (standing.replaced_at IS NULL OR assessments.created_at < standing.replaced_at)
        ) AS is_qualified,
        -- Only a human adjudicates: a judge cannot reach the top by naming its round so.
        CASE
            WHEN source_type = 'human' AND round = 'adjudication' THEN 1
            WHEN source_type = 'human' THEN 2
            WHEN source_type = 'llm_judge' THEN 3
            WHEN source_type = 'end_user' THEN 4
            ELSE 5
        END AS tier,
        correction ->> '$.content' AS corrected_text,
        correction ->> '$.tool_calls' AS corrected_calls
    FROM assessments
    ANTI JOIN superseded USING (workload, assessment_id)
    WHERE status = 'submitted' AND (interaction_id IS NOT NULL OR pair_ids IS NOT NULL)
        AND (
            judge_run_id IS NULL
            OR judge_run_id IN (SELECT judge_run_id FROM judge_runs WHERE state = 'valid')
        )
),
answered AS (
    SELECT
        *,
        CASE
            WHEN interaction_id IS NULL AND upper(label) = 'A' THEN 'prefers ' || (pair_ids ->> 0)
            WHEN interaction_id IS NULL AND upper(label) = 'B' THEN 'prefers ' || (pair_ids ->> 1)
            -- Answers in JSON agree whatever their spacing.
            WHEN correction IS NOT NULL THEN concat(
                'correction ',
                CASE
                    WHEN json_valid(corrected_text) THEN json(corrected_text)::VARCHAR
                    ELSE trim(corrected_text, E' \t\r\n')
                END,
                ' ' || corrected_calls
            )
            WHEN label IS NOT NULL THEN 'label ' || label
            WHEN value IS NOT NULL THEN 'value ' || value
        END AS answer
    FROM submitted
)
SELECT * EXCLUDE (corrected_text, corrected_calls)
FROM answered
WHERE answer IS NOT NULL
