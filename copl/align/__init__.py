"""From a reward to a personal answer: generators write candidates, aligners make of them what a user sees.

`generators` and `aligners` hold the components, a module each; what they stand on lies beside them.
"""
