-- Every item that version $5 of judge $2 judged, with what it said of it (a panel's mean; NULL where
-- it failed) and what experts said of it: the adjudicated score, else the mean of the experts' latest.
WITH latest AS (
    SELECT
        *,
        -- A share is the mean of whether the answer is that one; otherwise the mean is of scores.
        CASE WHEN $4::VARCHAR IS NULL THEN score ELSE (category = $4)::INTEGER END AS said
    FROM ratings
    WHERE workload = $1
        AND (
            (name = $2 AND source_type = 'llm_judge' AND judge_prompt_hash IS NOT DISTINCT FROM $5)
            OR (name = $3 AND tier <= 2)
        )
    QUALIFY row_number() OVER (
        PARTITION BY item, name, tier, rater ORDER BY created_at DESC, assessment_id DESC
    ) = 1
),
judged AS (
    SELECT item, avg(said)::DOUBLE AS judge_said, any_value(cluster) AS cluster
    FROM latest
    WHERE source_type = 'llm_judge'
    GROUP BY item
),
failed AS (
    SELECT DISTINCT
        coalesce(
            interaction_id,
            least(pair_ids ->> 0, pair_ids ->> 1) || ' ' || greatest(pair_ids ->> 0, pair_ids ->> 1)
        ) AS item
    FROM assessments
    WHERE workload = $1 AND name = $2 AND source_type = 'llm_judge' AND status = 'error'
        AND judge_prompt_hash IS NOT DISTINCT FROM $5
        AND (interaction_id IS NOT NULL OR pair_ids IS NOT NULL)
        AND (
            judge_run_id IS NULL
            OR judge_run_id IN (SELECT judge_run_id FROM judge_runs WHERE state = 'valid')
        )
),
labelled AS (
    SELECT
        item,
        coalesce(avg(said) FILTER (tier = 1), avg(said) FILTER (tier = 2))::DOUBLE AS experts_said,
        count(*) FILTER (said IS NULL) AS without_score,
        max(inclusion_prob) AS inclusion_prob
    FROM latest
    WHERE tier <= 2
    GROUP BY item
)
SELECT
    coalesce(judged.item, failed.item, labelled.item) AS item,
    judged.item IS NOT NULL OR failed.item IS NOT NULL AS is_judged,
    judge_said,
    experts_said,
    coalesce(without_score, 0) AS without_score,
    inclusion_prob,
    coalesce(cluster, judged.item, failed.item, labelled.item) AS cluster
FROM judged
FULL JOIN failed ON failed.item = judged.item
FULL JOIN labelled ON labelled.item = coalesce(judged.item, failed.item)
ORDER BY item
