"""A sweep: many searches and baselines on one task, compared by their Pareto fronts."""
