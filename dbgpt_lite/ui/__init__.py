"""The browser page: Gradio carries the events, everything a reader sees is rendered here and escaped."""
