"""From the evidence of an incident to a named cause. Neutral: sees numbers and names, never a framework."""
