"""What rewritten code calls when it runs: it looks at a value and either runs plain Python or stages part of a program.

Deciding:
- `helpers`     the object that rewritten code calls
- `truth`       truth values and comparisons: known now, or depending on the input
- `logic`       `and`, `or`, chained comparisons, `in`
- `branches`    `if` and the ternary
- `loops`       `while`
- `for_loops`   `for`
- `calls`       which function a call runs
- `outside`     the world outside of torch, which is refused
- `builtins`    Python's and torch's functions that need another meaning for dynamic values
- `arithmetic`  `//`, `%`, `**` of numbers that depend on data
- `indexing`    subscripts
- `objects`     changes of tensors and containers

Staging:
- `cond`        two blocks as one `torch.cond`
- `while_loop`  a condition and a body as one `torch.while_loop`
- `growth`      how much longer an iteration makes a tensor, and how often a loop runs at most
- `recorder`    the dry run of a block: what it reads and changes
- `regions`     tracing a block into a graph of its own
- `frame`       the names that a block shares with its surroundings
- `templates`   what two values of one name have in common
- `packing`     values to tensors and back
- `lists`       lists whose length depends on data
- `sequences`   what a `for` can run over when its length is not a constant
- `undefined`   a name without a value
- `same_tensor` two names for one tensor, where the program makes copies
- `aliases`     which tensors of the author's a block's results stand for
- `watch`       sees every call of torch: changes in place, and random numbers
- `context`     the state of one run of rewritten code

Running:
- `rewriting`   the resolver, which gives the rewritten form of a function that is called
- `copies`      a copy of a module, whose forwards are rewritten
- `trace`       a module and example inputs become a program
- `selection`   which functions are rewritten: those that stop the trace, in the end all
- `open_axes`   the dynamic axes of a trace
- `size_limits` guards that some sizes break, in the author's words
- `effects`     what Python code does beside computing
- `attributes`  whether written attributes are a memory of earlier calls
- `outputs`     what a model returns, as tensors
- `failures`    any failure as an error at the author's line
- `library_operators`  operators of libraries as operators of torch
- `simplify`    last touches on a captured graph
- `outcomes`    which branch outcomes inputs take
- `variations`  variations of example inputs
"""
