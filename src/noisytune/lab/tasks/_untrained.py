"""A plain English text that no task trains on: it measures what fine-tuning costs the rest of a language model."""

PARAGRAPHS = (
    "The harbour was built when the town had fewer than a thousand people. Ships brought salt and timber, and took "
    "away wool. Today the old warehouses are flats, and the quay is where people walk in the evening.",
    "Water boils at a lower temperature in the mountains, because the air presses less on its surface. An egg "
    "therefore has to stay in the pot for longer, and tea tastes weaker than it does by the sea.",
    "My grandmother kept bees behind the barn. She said that they knew the weather better than the radio did. When "
    "they stayed at home on a bright morning, we brought the washing in.",
    "To change a tyre, loosen the nuts before you lift the car. Put the jack where the manual says, raise the wheel "
    "until it turns freely, take the nuts off, and change it. Lower the car before you tighten them again.",
    "The court decided that the contract was void. Neither side had signed the second page, and the price on the "
    "first one had been changed by hand. Both will pay their own costs.",
    "Bread needs four things: flour, water, salt and time. The last is the one that most people leave out. A dough "
    "that has rested overnight has more taste, and keeps fresh for days.",
    "A triangle with sides of three, four and five has a right angle. Builders used a rope with twelve equal knots to "
    "lay out the corners of a house long before anybody had proved why it works.",
    "The train was late again, so we missed the boat. There was nothing to do but wait on the pier, watch the gulls, "
    "and share the last of the sandwiches. By the time the next one came, it had begun to rain.",
    "Trees talk to each other more than we thought. Below the ground their roots are joined by threads of fungi, "
    "which carry sugar from those that stand in the light to those that grow in the shade.",
    "Dear Sir or Madam, I am writing about the bill that I received on Monday. It asks for a sum that I paid in "
    "March. I enclose a copy of the receipt, and would be glad if you could correct your records.",
    "The first computers filled whole rooms and had less memory than a watch has today. Their programs were punched "
    "into cards, and a single hole in the wrong place could cost a day of work.",
    "In autumn the swallows gather on the wires above the road. For a week they talk, quarrel and change places; "
    "then, on one cold morning, they are gone, and the wires look like lines without notes.",
)
