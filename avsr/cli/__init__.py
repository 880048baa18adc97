"""The `avsr` command: one module a subcommand, each with SUMMARY, EXAMPLE, add_arguments() and run().

Nothing heavy is imported before a subcommand runs, so that `avsr --help` answers at once.
"""
