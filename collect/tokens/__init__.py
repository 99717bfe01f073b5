"""Visual tokens: where each lies in a clip, and which of them are stored."""
