-- Every item a judge judged, with what it said of it (a panel's mean; NULL where it failed) and what
-- experts said of it: the adjudicated score, else the mean of the experts' latest.
WITH latest AS (
    SELECT
        *,
        -- A share is the mean of whether the answer is that one; otherwise the mean is of scores.
        CASE WHEN $4::VARCHAR IS NULL THEN score ELSE (category = $4)::INTEGER END AS said
    FROM ratings
    WHERE workload = $1 AND name IN ($2, $3)
    QUALIFY row_number() OVER (
        PARTITION BY item, name, tier, rater ORDER BY created_at DESC, assessment_id DESC
    ) = 1
),
judged AS (
    SELECT item, avg(said)::DOUBLE AS judge_said, any_value(cluster) AS cluster
    FROM latest
    WHERE name = $2 AND source_type = 'llm_judge'
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
),
labelled AS (
    SELECT
        item,
        coalesce(avg(said) FILTER (tier = 1), avg(said) FILTER (tier = 2))::DOUBLE AS experts_said,
        max(inclusion_prob) AS inclusion_prob
    FROM latest
    WHERE name = $3 AND tier <= 2
    GROUP BY item
)
SELECT
    coalesce(judged.item, failed.item, labelled.item) AS item,
    judged.item IS NOT NULL OR failed.item IS NOT NULL AS is_judged,
    judge_said,
    experts_said,
    inclusion_prob,
    coalesce(cluster, judged.item, failed.item, labelled.item) AS cluster
FROM judged
FULL JOIN failed ON failed.item = judged.item
FULL JOIN labelled ON labelled.item = coalesce(judged.item, failed.item)
ORDER BY item
