"""The triage workload: how soon must somebody see this patient?"""
