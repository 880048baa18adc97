"""The local page of `avsr serve`: live captions of a browser's camera and microphone.

    protocol.py     what page and server say to each other
    limits.py       how much of it, and how fast
    access.py       who may: names, origins, the token
    pictures.py     JPEG to pixels, bounded before anything is decoded
    stream.py       one session, fed by threads of its own from bounded queues
    connection.py   one WebSocket, from its hello to its close
    transport.py    the same for what happens below a WebSocket: connections that stall or flood
    app.py          the web application
    server.py       the process: socket, model, uvicorn

Nothing here is imported before `avsr serve` runs. `app.py`, `connection.py`, `transport.py` and `server.py` alone know
FastAPI and uvicorn, which are the optional extra `serve`.
"""
