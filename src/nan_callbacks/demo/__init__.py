"""The demo: one small net, three faults, each without the guard, with it, and never disturbed.

This room is neutral. A framework joins with one function that trains one arm (:data:`.arm.TrainArm`), kept in
the framework's own room, and one entry in :data:`.frameworks.FRAMEWORKS`.
"""
