-- Pairs judged by judge $2 of workload $1, of an answer of model $3 and one of model $4, as the
-- view ratings names them, each with whether its A (the answer with the smaller id) is of model $3.
WITH pairs AS (
    SELECT DISTINCT
        least(pair_ids ->> 0, pair_ids ->> 1) AS a,
        greatest(pair_ids ->> 0, pair_ids ->> 1) AS b
    FROM assessments
    WHERE workload = $1 AND name = $2 AND interaction_id IS NULL AND pair_ids IS NOT NULL
)
SELECT DISTINCT a || ' ' || b AS item, first.response_model = $3 AS is_first
FROM pairs
JOIN interactions AS first ON first.workload = $1 AND first.interaction_id = a
JOIN interactions AS second ON second.workload = $1 AND second.interaction_id = b
WHERE (first.response_model, second.response_model) IN (($3, $4), ($4, $3))
