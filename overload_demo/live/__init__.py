"""The live view of a spike: one stream of samples for a page to project, a notebook and a terminal.

``sample`` one moment · ``feed`` the stream · ``words`` what it says · ``figure`` and ``markup`` how it looks ·
``page``, ``widget``, ``terminal`` where it is shown · ``follow``, ``watch``, ``replay`` where it comes from ·
``stage`` what an instructor does, ``sizes`` and ``rehearsal`` how large.
"""
