def read_ssml(input, *, language, whole, longest): raise NotImplementedError
