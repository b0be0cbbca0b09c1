"""Text to speech: `atrium.tts.v1` over the engines of `engines/`."""
