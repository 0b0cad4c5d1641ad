-- Items of workload $1 on whose question (one of $2) the source $3 has spoken: settled, or not (a
-- strength of 0). A pair's ids are sorted.
SELECT item, bool_and(strength > 0) AS is_settled
FROM verdicts
WHERE workload = $1 AND list_contains($2::VARCHAR[], name) AND label_source = $3
GROUP BY item
ORDER BY item
