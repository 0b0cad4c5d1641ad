-- Pairs of different answers to the same messages, the ones a judge has compared first; none that a
-- person (with a rater: this rater) has compared under this question. Each answer is in one pair.
WITH compared AS (
    SELECT DISTINCT least(pair_ids ->> 0, pair_ids ->> 1) AS a, greatest(pair_ids ->> 0, pair_ids ->> 1) AS b
    FROM assessments
    WHERE workload = $1
        AND name = $2
        AND source_type = 'human'
        AND pair_ids IS NOT NULL
        AND ($3::VARCHAR IS NULL OR source_id = $3)
),
judged AS (
    SELECT DISTINCT pair_ids ->> 0 AS a, pair_ids ->> 1 AS b, 0 AS rank
    FROM assessments
    WHERE workload = $1 AND source_type = 'llm_judge' AND pair_ids IS NOT NULL
),
answers AS (
    SELECT interaction_id, messages, response
    FROM interactions
    WHERE workload = $1 AND response IS NOT NULL AND status = 'ok'
    -- The same answer given twice is one.
    QUALIFY row_number() OVER (PARTITION BY messages, response ORDER BY interaction_id) = 1
),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY messages ORDER BY interaction_id) AS place
    FROM answers
),
asked AS (
    SELECT one.interaction_id AS a, other.interaction_id AS b, 1 AS rank
    FROM numbered AS one
    JOIN numbered AS other ON one.messages = other.messages AND other.place = one.place + 1
    WHERE one.place % 2 = 1
),
candidates AS (
    SELECT * FROM judged WHERE a IN (SELECT interaction_id FROM interactions) AND b IN (SELECT interaction_id FROM interactions)
    UNION ALL
    SELECT * FROM asked
)
SELECT a, b
FROM candidates
WHERE NOT EXISTS (
    SELECT 1 FROM compared
    WHERE compared.a = least(candidates.a, candidates.b) AND compared.b = greatest(candidates.a, candidates.b)
)
-- One order of each pair, whatever the orders it was judged in.
QUALIFY row_number() OVER (PARTITION BY least(a, b), greatest(a, b) ORDER BY rank, a) = 1
ORDER BY rank, sha256(a || b || $2), a
LIMIT $4
