-- Every interaction of workload $1 somebody answered question $2 about, with its resolved label.
SELECT
    interaction_id,
    conversation_id,
    started_at,
    messages,
    tools,
    response,
    status,
    label_source,
    correction,
    value,
    label,
    raters,
    agreement,
    strength,
    last_at
FROM responses
WHERE workload = $1 AND name = $2
