"""The REST endpoints: the shapes of requests and answers, over one pipeline."""
