"""From a teacher's rollouts to training sets: sampling, verdicts, the funnel of filters."""
