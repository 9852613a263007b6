"""One index in parts, each searched where it is: asked at once, answers merged, and what is missing said."""
