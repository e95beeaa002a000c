"""Statistics of a listening test: strengths, win rates, agreement, attention, and when a comparison is decided.

Everything here is a pure function of `answers.Answer`s, in the order in which they were given. Answers that find both
clips bad prefer neither system: they are counted, and left out of strengths and win rates as Music Arena does.
Intervals are over listeners: a listener's answers resemble each other, so that votes are not independent.
"""
