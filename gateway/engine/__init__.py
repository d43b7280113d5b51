"""Jobs, runner, followers, sweeper: effects through ports only."""
