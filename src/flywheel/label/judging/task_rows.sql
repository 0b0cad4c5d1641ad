-- The interactions $2 of workload $1, each with the newest answer an expert gave in its stead, to it
-- or to the same messages: the question is labels.name, $3.
WITH wanted AS (
    SELECT * FROM interactions
    WHERE workload = $1 AND list_contains($2::VARCHAR[], interaction_id)
),
corrected AS (
    SELECT interactions.messages, arg_max(labels.correction, labels.last_at) AS correction
    FROM labels
    JOIN interactions USING (workload, interaction_id)
    WHERE workload = $1 AND labels.name = $3
        AND labels.correction IS NOT NULL AND label_source IN ('adjudicated', 'expert')
    GROUP BY interactions.messages
)
SELECT wanted.*, corrected.correction AS expert_answer
FROM wanted
LEFT JOIN corrected USING (messages)
