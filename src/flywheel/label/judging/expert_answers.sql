-- Of the interactions $2 of workload $1: the newest answer that an expert gave in the stead of an
-- answer to the same messages. The question is labels.name, $3.
WITH corrected AS (
    SELECT interactions.messages, arg_max(labels.correction, labels.last_at) AS expert_answer
    FROM labels
    JOIN interactions USING (workload, interaction_id)
    WHERE workload = $1 AND labels.name = $3
        AND labels.correction IS NOT NULL AND label_source IN ('adjudicated', 'expert')
    GROUP BY interactions.messages
)
SELECT interaction_id, expert_answer
FROM interactions
JOIN corrected USING (messages)
WHERE workload = $1 AND list_contains($2::VARCHAR[], interaction_id)
