-- Adjudicated preferences: one row for each pair, with both answers to what was asked.
-- $1 workload, $2 the question's name.
SELECT
    verdicts.item,
    verdicts.spoken.label AS label,
    a.interaction_id AS id_a,
    b.interaction_id AS id_b,
    a.conversation_id,
    a.messages,
    a.response AS response_a,
    b.response AS response_b,
    a.response_model AS model_a,
    b.response_model AS model_b,
    a.adapter AS adapter_a,
    b.adapter AS adapter_b
FROM verdicts
JOIN interactions AS a
    ON a.workload = verdicts.workload AND a.interaction_id = verdicts.spoken.pair_ids ->> 0
JOIN interactions AS b
    ON b.workload = verdicts.workload AND b.interaction_id = verdicts.spoken.pair_ids ->> 1
WHERE verdicts.workload = $1
    AND verdicts.name = $2
    AND verdicts.is_pair
    AND verdicts.label_source = 'adjudicated'
    AND verdicts.strength > 0
    AND a.response IS NOT NULL
    AND b.response IS NOT NULL
ORDER BY verdicts.item
