-- Adjudicated labels of single answers: one row for each answer and question, as the judge is asked it.
-- $1 workload, $2 the questions' names.
SELECT
    labels.interaction_id,
    labels.name,
    labels.label,
    labels.value,
    interactions.conversation_id,
    interactions.messages,
    interactions.response,
    interactions.response_model,
    interactions.adapter
FROM labels
JOIN interactions USING (workload, interaction_id)
WHERE labels.workload = $1
    AND list_contains($2::VARCHAR[], labels.name)
    AND labels.label_source = 'adjudicated'
    AND labels.strength > 0
    AND interactions.response IS NOT NULL
ORDER BY labels.interaction_id, labels.name
