-- What raters said, ready to be compared: one row a judgement that stands, a rater's earlier ones too.
--
-- `category` is the answer as two raters must share it; of a pair, A is the answer with the smaller
-- id, whichever way round a rater saw them, and `score` is how much of a win for that A. It is NULL
-- where a rater could not judge: that is no answer, and no disagreement. `cluster` is the
-- conversation, where the judged call is known: its items are not independent.
WITH oriented AS (
    SELECT
        submissions.*,
        coalesce(source_id, '') AS rater,
        interaction_id IS NULL AND (pair_ids ->> 0) > (pair_ids ->> 1) AS is_turned,
        CASE WHEN interaction_id IS NULL THEN upper(label) END AS preference,
        coalesce(interaction_id, pair_ids ->> 0) AS judged_id
    FROM submissions
)
SELECT
    workload,
    item,
    name,
    tier,
    kind,
    source_type,
    rater,
    round,
    guideline,
    rubric,
    CASE
        WHEN lower(label) = 'cannot_judge' THEN NULL
        WHEN preference IN ('A', 'B') THEN
            CASE WHEN (preference = 'A') <> is_turned THEN 'A' ELSE 'B' END
        WHEN starts_with(answer, 'value ') THEN regexp_replace(answer[7:], '\.0$', '')
        WHEN starts_with(answer, 'label ') THEN answer[7:]
        ELSE substr(answer, length('correction ') + 1)
    END AS category,
    CASE
        WHEN lower(label) = 'cannot_judge' THEN NULL
        WHEN preference IN ('A', 'B') THEN CASE WHEN (preference = 'A') <> is_turned THEN 1.0 ELSE 0.0 END
        WHEN preference IN ('TIE', 'BOTH_BAD') THEN 0.5
        WHEN is_turned THEN 1 - value
        ELSE value
    END::DOUBLE AS score,
    oriented.inclusion_prob,
    is_qualified,
    judge_prompt_hash,
    created_at,
    assessment_id,
    coalesce(calls.conversation_id, item) AS cluster
FROM oriented
LEFT JOIN (SELECT workload, interaction_id AS judged_id, conversation_id FROM interactions) AS calls
    USING (workload, judged_id)
