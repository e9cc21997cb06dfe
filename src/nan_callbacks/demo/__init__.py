"""The demo: one small net, three faults, in each framework without the guard, with it, and never disturbed.

This room is neutral. A framework joins with one function that trains one arm (:data:`.arm.TrainArm`), kept in the
framework's own room, and one :class:`.frameworks.DemoFramework` that says where it is and what it needs.
"""
