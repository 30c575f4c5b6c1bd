"""Where work is done: one file per executor, found by its name.

An executor is a class ``Name(workers, scheduler)`` that satisfies `featstore.types.Executor`. It knows picklable
callables and picklable items, and nothing of images, networks or stores.
"""
