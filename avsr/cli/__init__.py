"""The `avsr` command line: one module for each command.

A command module has DESCRIPTION, EXAMPLE, add_arguments(parser) and run(arguments). A command with actions of its own,
such as `avsr noise plan`, has ACTIONS instead of the last three: a table of `Action`.

A module imports numpy, torch and whatever else is slow inside run(), so that `avsr COMMAND --help` answers at once.
"""
