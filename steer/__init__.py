"""From an SAE, a VLM and questions to the effect of each intervention on the answers.

Covers counting items and their prompts, interventions on the residual stream, answer margins, the site profile,
matched controls and the report over a whole run.

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
