"""Which datasets will be read next week: learnt from how they were read before, week by week."""
