"""From a text or SSML to the utterances that engines say one after the other."""
