-- Pairs of answers to the same messages by two different models, of workload $1, in the order of the
-- draw $2, each with whether judge $3 of identity $4, a panel of $5, has judged it. Of a model that
-- answered the same twice the later answer is taken; answers that are the same make no pair.
WITH answers AS (
    SELECT
        interaction_id,
        md5(concat(messages, '|', tools)) AS asked,
        coalesce(response_model, request_model) AS answered_by,
        response
    FROM interactions
    WHERE workload = $1 AND status IN ('ok', 'truncated') AND response IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY asked, answered_by ORDER BY started_at DESC, interaction_id DESC
    ) = 1
),
pairs AS (
    SELECT
        least(a.interaction_id, b.interaction_id) AS first_id,
        greatest(a.interaction_id, b.interaction_id) AS second_id
    FROM answers AS a
    JOIN answers AS b ON a.asked = b.asked AND a.answered_by < b.answered_by
    WHERE a.response IS DISTINCT FROM b.response
),
judged AS (
    SELECT
        least(pair_ids ->> 0, pair_ids ->> 1) AS first_id,
        greatest(pair_ids ->> 0, pair_ids ->> 1) AS second_id
    FROM assessments
    WHERE workload = $1 AND name = $3 AND judge_prompt_hash = $4 AND status = 'submitted'
    GROUP BY ALL
    HAVING count(DISTINCT source_id) >= $5
)
SELECT
    first_id || ' ' || second_id AS task_id,
    md5_number_lower($2 || ':' || first_id || ' ' || second_id)::DOUBLE / 18446744073709551616 AS draw,
    judged.first_id IS NOT NULL AS is_judged
FROM pairs
LEFT JOIN judged USING (first_id, second_id)
ORDER BY draw, task_id
