"""The verbs of the command line: a module a group of verbs, with their options, one library call, and their tables.

output.py             what every verb prints with: tables, notes, warnings, the next commands
options.py            options that several verbs have
training_options.py   a training's settings as options
run.py                run
train.py              train
evaluate.py           evaluate
export.py             export, quantize
verify.py             verify
package.py            package
serve.py              serve, status, ready, deploy, stop
predict.py            predict
bench.py              bench train, bench serve
catalogue.py          models, datasets, formats
doctor.py             doctor

A verb is a function that prints its result and returns it as an object that can be written as JSON. It raises errors;
`cli.py` prints them. A verb imports what it needs of the other rooms when it is called, so that no verb waits for what
another one needs. For the type checker, such names are imported under TYPE_CHECKING as well.
"""
