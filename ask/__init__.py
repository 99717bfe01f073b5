"""From a VLM and questions to answers: prompts, packing, margins, and what the text alone gives away."""
