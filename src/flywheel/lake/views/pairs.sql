-- Pairs to learn a preference from: `chosen` over `rejected`, assistant messages, as answers to
-- `messages`. From corrections (the correction over what was served, where they differ) and from
-- preferences (label 'A' or 'B' of pair_ids). Ties and split raters make no pair.
SELECT
    interactions.workload,
    labels.name,
    'correction' AS pair_source,
    interactions.interaction_id,
    NULL AS rejected_interaction_id,
    interactions.conversation_id,
    interactions.messages,
    interactions.tools,
    labels.correction AS chosen,
    interactions.response AS rejected,
    labels.label_source,
    labels.raters,
    labels.agreement,
    labels.strength,
    labels.last_at
FROM labels
JOIN interactions USING (workload, interaction_id)
WHERE labels.correction IS NOT NULL
    AND interactions.response IS NOT NULL
    AND (labels.correction ->> '$.content', labels.correction ->> '$.tool_calls')
        IS DISTINCT FROM (interactions.response ->> '$.content', interactions.response ->> '$.tool_calls')
UNION ALL BY NAME
SELECT
    verdicts.workload,
    verdicts.name,
    'preference' AS pair_source,
    better.interaction_id,
    worse.interaction_id AS rejected_interaction_id,
    better.conversation_id,
    better.messages,
    better.tools,
    better.response AS chosen,
    worse.response AS rejected,
    verdicts.label_source,
    verdicts.raters,
    verdicts.agreement,
    verdicts.strength,
    verdicts.last_at
FROM verdicts
JOIN interactions AS better
    ON better.workload = verdicts.workload
    AND better.interaction_id = verdicts.spoken.pair_ids ->> (CASE upper(verdicts.spoken.label) WHEN 'A' THEN 0 WHEN 'B' THEN 1 END)
JOIN interactions AS worse
    ON worse.workload = verdicts.workload
    AND worse.interaction_id = verdicts.spoken.pair_ids ->> (CASE upper(verdicts.spoken.label) WHEN 'A' THEN 1 WHEN 'B' THEN 0 END)
WHERE verdicts.is_pair AND better.response IS NOT NULL AND worse.response IS NOT NULL
