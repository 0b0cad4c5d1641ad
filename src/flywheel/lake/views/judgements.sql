-- The judgements that count for each question asked of an interaction: one row a rater of the
-- strongest tier present. A question is (workload, interaction_id, name).
--
-- Not counted: discarded and failed ones, those that say nothing, and those another one supersedes
-- (also when that one is discarded: so a judgement is withdrawn). Within the tier a rater's latest
-- judgement replaces the earlier ones; judgements without source_id are one unnamed rater.
WITH superseded AS (
    SELECT workload, supersedes AS assessment_id
    FROM assessments
    WHERE supersedes IS NOT NULL AND supersedes <> assessment_id AND status <> 'error'
),
submitted AS (
    SELECT
        *,
        CASE
            WHEN source_type = 'human' AND round = 'adjudication' THEN 1
            WHEN source_type = 'human' THEN 2
            WHEN source_type = 'llm_judge' THEN 3
            WHEN source_type = 'end_user' THEN 4
            ELSE 5
        END AS tier,
        coalesce(source_id, '') AS rater,
        -- What two raters must share to agree: the correction, else the label, else the value.
        coalesce(
            'correction ' || CASE
                WHEN correction IS NULL THEN NULL
                -- JSON answers agree whatever their spacing.
                WHEN json_valid(correction ->> '$.content')
                    THEN json(correction ->> '$.content')::VARCHAR
                ELSE coalesce(trim(correction ->> '$.content'), '')
            END || ' ' || coalesce(CASE WHEN correction IS NOT NULL THEN (correction -> '$.tool_calls')::VARCHAR END, ''),
            'label ' || label,
            'value ' || value
        ) AS answer
    FROM assessments
    ANTI JOIN superseded USING (workload, assessment_id)
    WHERE status = 'submitted' AND interaction_id IS NOT NULL
),
strongest AS (
    SELECT *
    FROM submitted
    WHERE answer IS NOT NULL
    QUALIFY tier = min(tier) OVER (PARTITION BY workload, interaction_id, name)
)
SELECT *
FROM strongest
QUALIFY row_number() OVER (
    PARTITION BY workload, interaction_id, name, rater
    ORDER BY created_at DESC, assessment_id DESC
) = 1
