-- Preferences of one judge between two models: $1 workload, $2 judge, $3 the model whose wins count,
-- $4 the other. One row a pair: the latest verdict of each rater, averaged over a panel; of the
-- judge's version $5 (its hash).
WITH latest AS (
    SELECT workload, pair_ids ->> 0 AS a, pair_ids ->> 1 AS b, value, covariates
    FROM submissions
    WHERE workload = $1 AND name = $2 AND kind = 'preference' AND source_type = 'llm_judge'
        AND value IS NOT NULL AND judge_prompt_hash IS NOT DISTINCT FROM $5
    QUALIFY row_number() OVER (
        PARTITION BY pair_ids, source_id ORDER BY created_at DESC, assessment_id DESC
    ) = 1
),
pairs AS (
    SELECT
        a, b, first.response_model AS model_a, second.response_model AS model_b,
        first.conversation_id AS cluster, value,
        (covariates ->> '$.response_a.characters')::DOUBLE
            - (covariates ->> '$.response_b.characters')::DOUBLE AS longer_a
    FROM latest
    JOIN interactions AS first ON first.workload = latest.workload AND first.interaction_id = a
    JOIN interactions AS second ON second.workload = latest.workload AND second.interaction_id = b
    WHERE longer_a IS NOT NULL
),
turned AS (
    SELECT *, model_a = models.model AS is_first
    FROM pairs
    JOIN (SELECT $3 AS model, $4 AS against) AS models
        ON (model_a, model_b) IN ((models.model, models.against), (models.against, models.model))
)
SELECT
    avg(CASE WHEN is_first THEN value ELSE 1 - value END) AS wins,
    any_value(CASE WHEN is_first THEN longer_a ELSE -longer_a END) AS length_difference,
    any_value(cluster) AS cluster
FROM turned
GROUP BY a, b
ORDER BY a, b
