"""What is asked of the code of a record: to write it, or to explain, summarise, repair, test or translate it.

Source: WizardCoder, arXiv 2306.08568, evolves generation alone and leaves other tasks to future work; the others are ours.
"""

GENERATE = "generate"
TRANSLATE = "translate"
TASK_NAMES = (GENERATE, "explain", "summarise", "repair", "test", TRANSLATE)
