r"""Encoder ``tastes``: users known by what they read, also where no two of them share a text.

.. math::
    s(u, r) = (1, z_u) \cdot (A^\top x_r + o_r) + e_u \cdot x_r, \quad
    z_u \sim \sum_g \pi_g N(\mu_g, S), \quad e_u \sim N(0, \tau^2 I), \quad o_{rk} \sim N(0, v)

A response is its text, by coordinates x of frozen features, and an own part o, what comparisons of it say beyond the
text. A user is a place z along directions of taste that users have in common, and a taste e in any direction: a
Gaussian process over texts. Both have closed forms given any texts, for seen users and newcomers alike. Directions are
learnt with users at N(0, I_K); then it is seen whether users gather along them.

Relatives: collaborative topic regression (Wang and Blei, KDD 2011) has the text part and the own part; probit and
logistic matrix factorisation the directions; PReF and LoRe directions in features of a language model.
"""

from copl.graph.encoders.tastes.encoder import Tastes, continue_tastes, learn_tastes

__all__ = ["Tastes", "continue_tastes", "learn_tastes"]
