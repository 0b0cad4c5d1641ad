-- One row per (workload, interaction_id, name): the resolved label.
--
-- The raters of the strongest tier vote (see judgements.sql); an answer more than half of them give
-- is the label. Without one, correction, value and label are NULL and strength is 0: disagreement
-- never becomes a label. `agreement` is the share of raters behind the most frequent answer.
-- `strength` is agreement times the tier's weight, chosen so that
-- adjudicated > unanimous experts > majority of experts > judge > end user > code.
WITH votes AS (
    SELECT
        workload,
        interaction_id,
        name,
        answer,
        count(*) AS votes,
        any_value(tier) AS tier,
        min(created_at) AS first_at,
        max(created_at) AS last_at,
        -- The latest of those who agree speaks for them.
        arg_max(
            {correction: correction, value: value, label: label}, (created_at, assessment_id)
        ) AS spoken
    FROM judgements
    GROUP BY workload, interaction_id, name, answer
),
counted AS (
    SELECT
        workload,
        interaction_id,
        name,
        any_value(tier) AS tier,
        sum(votes)::BIGINT AS raters,
        max(votes) / sum(votes) AS agreement,
        arg_max(spoken, votes) AS spoken,
        min(first_at) AS first_at,
        max(last_at) AS last_at
    FROM votes
    GROUP BY workload, interaction_id, name
)
SELECT
    workload,
    interaction_id,
    name,
    ['adjudicated', 'expert', 'judge', 'end_user', 'code'][tier] AS label_source,
    CASE WHEN agreement > 0.5 THEN spoken.correction END AS correction,
    CASE WHEN agreement > 0.5 THEN spoken.value END AS value,
    CASE WHEN agreement > 0.5 THEN spoken.label END AS label,
    raters,
    agreement,
    CASE WHEN agreement > 0.5 THEN agreement * [1.0, 0.9, 0.45, 0.3, 0.15][tier] ELSE 0 END::DOUBLE
        AS strength,
    first_at,
    last_at
FROM counted
