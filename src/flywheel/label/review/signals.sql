-- How much each strategy wants each item of workload $1: rows of (item, strategy, score).
--
-- Judges count here whether they are qualified or not: they label nothing, they only point at what
-- people should look at.
WITH judged AS (
    SELECT *
    FROM submissions
    WHERE workload = $1
    QUALIFY row_number() OVER (
        PARTITION BY item, name, tier, coalesce(source_id, '')
        ORDER BY created_at DESC, assessment_id DESC
    ) = 1
),
votes AS (
    SELECT item, name, answer, count(*) AS votes
    FROM judged
    WHERE tier = 3 AND NOT suffix(name, ':AB') AND NOT suffix(name, ':BA')
    GROUP BY ALL
),
splits AS (
    SELECT item, name, 1 - max(votes) / sum(votes) AS score
    FROM votes
    GROUP BY item, name
)
-- End users said it was bad, or how it should have been.
SELECT item, 'complaints' AS strategy, count(*)::DOUBLE AS score
FROM judged
WHERE tier = 4
    AND (
        value < 0.5
        OR correction IS NOT NULL
        OR lower(label) IN ('down', 'thumbs_down', 'thumbs-down', 'bad', 'dislike')
    )
GROUP BY item
UNION ALL
-- The same judge preferred different answers when they changed places.
SELECT ab.item, 'order_disagreement', 1.0
FROM judged AS ab
JOIN judged AS ba
    ON ab.item = ba.item
    AND coalesce(ab.source_id, '') = coalesce(ba.source_id, '')
    AND suffix(ab.name, ':AB')
    AND ba.name = left(ab.name, length(ab.name) - 3) || ':BA'
WHERE ab.tier = 3 AND ba.tier = 3 AND ab.answer <> ba.answer
UNION ALL
-- The members of a panel differ; 0.5 is a panel split down the middle.
SELECT item, 'panel_split', max(score)
FROM splits
WHERE score > 0
GROUP BY item
UNION ALL
-- A judge whose grade is near the middle of its scale.
SELECT item, 'uncertainty', max(1 - abs(2 * value - 1))
FROM judged
WHERE tier = 3 AND interaction_id IS NOT NULL AND value > 0 AND value < 1
GROUP BY item
UNION ALL
-- A model that was not sure of its own words: the mean log-probability of its tokens.
SELECT interaction_id, 'uncertainty', 1 - exp(try_cast(tags ->> '$.mean_logprob' AS DOUBLE))
FROM interactions
WHERE workload = $1 AND try_cast(tags ->> '$.mean_logprob' AS DOUBLE) < 0
