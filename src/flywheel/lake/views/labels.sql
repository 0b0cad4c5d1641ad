-- One row per (workload, interaction_id, name): the resolved label, by the rules in judgements.sql
-- and verdicts.sql. Where the raters are split, correction, value and label are NULL and strength is 0.
SELECT
    workload,
    item AS interaction_id,
    name,
    label_source,
    spoken.correction AS correction,
    spoken.value AS value,
    spoken.label AS label,
    raters,
    agreement,
    strength,
    first_at,
    last_at
FROM verdicts
WHERE NOT is_pair
