-- Pairs of answers of workload $1 that can be compared: those somebody or some judge compared
-- before, and one for each prompt that was answered in different ways.
WITH answered AS (
    SELECT interaction_id, messages, response ->> '$.content' AS answer
    FROM interactions
    WHERE workload = $1 AND status IN ('ok', 'truncated') AND response IS NOT NULL
),
ways AS (
    SELECT messages, answer, min(interaction_id) AS interaction_id
    FROM answered
    GROUP BY messages, answer
),
prompts AS (
    SELECT list(interaction_id ORDER BY interaction_id) AS ids
    FROM ways
    GROUP BY messages
    HAVING count(*) > 1
),
found AS (
    SELECT pair_ids ->> 0 AS a, pair_ids ->> 1 AS b
    FROM assessments
    WHERE workload = $1 AND pair_ids IS NOT NULL
    UNION ALL
    SELECT ids[1], ids[2]
    FROM prompts
)
SELECT DISTINCT least(a, b) AS a, greatest(a, b) AS b
FROM found
WHERE a <> b
    AND a IN (SELECT interaction_id FROM answered)
    AND b IN (SELECT interaction_id FROM answered)
ORDER BY a, b
