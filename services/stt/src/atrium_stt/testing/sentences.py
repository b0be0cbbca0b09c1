"""Ten ordinary sentences, to be spoken by a synthesizer and heard again."""

SENTENCES = (
    "The library opens at nine in the morning and closes late in the evening.",
    "She bought fresh bread, apples and a bottle of milk at the market.",
    "Our train leaves the station in twenty minutes, so we should hurry.",
    "The weather was cold yesterday, but the sun is shining today.",
    "Please send the report to the whole team before the end of the week.",
    "My brother plays the guitar and sings in a small band.",
    "The doctor told him to drink more water and sleep eight hours a night.",
    "We walked along the river until we reached the old stone bridge.",
    "The children are building a house for the birds in the garden.",
    "He forgot his umbrella and came home completely wet.",
)
