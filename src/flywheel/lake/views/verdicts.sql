-- What the raters of the strongest tier say: one row for each question of judgements.sql.
--
-- They vote; an answer that more than half of them give is the verdict, and the latest who gave it
-- speaks for them. Without one, spoken is NULL and strength is 0: disagreement never becomes a label.
-- `agreement` is the share of raters behind the most frequent answer. `strength` is agreement times
-- the tier's weight, and keeps adjudicated > unanimous experts > majority of experts > judge > …
WITH strongest AS (
    SELECT *
    FROM judgements
    QUALIFY tier = min(tier) OVER (PARTITION BY workload, item, name)
),
votes AS (
    SELECT
        workload,
        item,
        name,
        tier,
        answer,
        count(*) AS votes,
        bool_and(interaction_id IS NULL) AS is_pair,
        arg_max(strongest, (created_at, assessment_id)) AS spoken,
        min(created_at) AS first_at,
        max(created_at) AS last_at
    FROM strongest
    GROUP BY workload, item, name, tier, answer
),
counted AS (
    SELECT
        workload,
        item,
        name,
        tier,
        bool_and(is_pair) AS is_pair,
        sum(votes)::BIGINT AS raters,
        (max(votes) / sum(votes))::DOUBLE AS agreement,
        arg_max(spoken, votes) AS spoken,
        min(first_at) AS first_at,
        max(last_at) AS last_at
    FROM votes
    GROUP BY workload, item, name, tier
)
SELECT
    workload,
    item,
    is_pair,
    name,
    ['adjudicated', 'expert', 'judge', 'end_user', 'code'][tier] AS label_source,
    CASE WHEN agreement > 0.5 THEN spoken END AS spoken,
    raters,
    agreement,
    CASE WHEN agreement > 0.5 THEN agreement * [1.0, 0.9, 0.45, 0.3, 0.15][tier] ELSE 0 END::DOUBLE
        AS strength,
    first_at,
    last_at
FROM counted
