-- Answered interactions of workload $1 in the order of the draw $2, each with whether judge $3 of
-- identity $4, a panel of $5, has judged it: every model of the panel gave a verdict.
WITH judged AS (
    SELECT interaction_id
    FROM assessments
    WHERE workload = $1 AND name = $3 AND judge_prompt_hash = $4 AND status = 'submitted'
    GROUP BY interaction_id
    HAVING count(DISTINCT source_id) >= $5
)
SELECT
    interaction_id AS task_id,
    md5_number_lower($2 || ':' || interaction_id)::DOUBLE / 18446744073709551616 AS draw,
    judged.interaction_id IS NOT NULL AS is_judged
FROM interactions
LEFT JOIN judged USING (interaction_id)
WHERE workload = $1 AND status IN ('ok', 'truncated') AND response IS NOT NULL
ORDER BY draw, task_id
