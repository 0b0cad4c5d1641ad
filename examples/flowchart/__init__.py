"""A workload whose answers are checked, and repaired, by code: flowcharts without cycles."""
