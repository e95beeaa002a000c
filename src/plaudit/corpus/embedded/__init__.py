"""The embedded musical world: a composer, a synthesizer and a captioner whose truth is known."""
