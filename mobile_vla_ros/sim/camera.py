"""MuJoCo's software renderer, with one GL context for many scenes."""

import ctypes.util
import os
import weakref

import numpy as np

from mobile_vla_ros.errors import UserError

# MuJoCo reads MUJOCO_GL when it is imported. OSMesa comes first: it needs no device. A window
# system's GL (GLFW, MuJoCo's own default) could only draw in the main thread.
GL_LIBRARIES = {'osmesa': 'OSMesa', 'egl': 'EGL'}
GL_REMEDY = 'sudo apt-get install libosmesa6 libegl1 libgl1-mesa-dri'
if 'MUJOCO_GL' not in os.environ:
    os.environ['MUJOCO_GL'] = next(
        (backend for backend, name in GL_LIBRARIES.items() if ctypes.util.find_library(name)),
        'disable',
    )

try:
    import mujoco
except Exception as error:  # PyOpenGL fails in many ways when its library is not there
    raise UserError(
        'MuJoCo cannot load its renderer',
        got=f'{type(error).__name__}: {error}',
        expected=f'the library of MUJOCO_GL={os.environ["MUJOCO_GL"]}',
        remedy=GL_REMEDY,
    ) from error

CAMERA = 'front'
FONT_SCALE = 50  # the smallest; no text is drawn, and a context of 4 ms instead of 100 is


class Camera:
    """
    Draws what the base's camera sees. Use it in the thread that made it.

    A context lasts for many models: ``load`` takes about 4 ms where a new
    ``mujoco.Renderer`` takes about 130.

    :param width: pixels.
    :param height: pixels.
    :raises UserError: when no GL can be had.
    """

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        try:
            self._gl = mujoco.GLContext(width, height)
            self._gl.make_current()
        except Exception as error:  # each GL binding raises its own kind
            raise UserError(
                'the camera cannot draw',
                got=f'{type(error).__name__}: {error}',
                expected=f'software GL (MUJOCO_GL={os.environ["MUJOCO_GL"]})',
                remedy=f'{GL_REMEDY}, or set MUJOCO_GL to osmesa or egl',
            ) from error
        self._loaded: dict = {}
        # OSMesa prints an exception when the interpreter takes it down with a context alive.
        self._finalizer = weakref.finalize(self, _free, self._gl, self._loaded)

    def load(self, model: mujoco.MjModel) -> None:
        """Take another model; its offscreen buffer must be at least this camera's size."""
        self._gl.make_current()
        if 'context' in self._loaded:
            self._loaded['context'].free()
        context = mujoco.MjrContext(model, FONT_SCALE)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        self._loaded['context'] = context
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._option = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = model.camera(CAMERA).id
        self._rect = mujoco.MjrRect(0, 0, self.width, self.height)

    def image(self, data: mujoco.MjData) -> np.ndarray:
        """Return (height, width, 3) uint8, RGB, without sensor noise."""
        return self._draw(data)

    def geoms(self, data: mujoco.MjData) -> np.ndarray:
        """Return (height, width) int32: the geom seen at each pixel, -1 for the sky."""
        flags = self._scene.flags.copy()
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            pixels = self._draw(data).astype(np.int32)
        finally:
            self._scene.flags[:] = flags
        number = pixels[..., 0] + (pixels[..., 1] << 8) + (pixels[..., 2] << 16)
        table = np.full(self._scene.ngeom + 1, -1, dtype=np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = geom.objid
        return table[number]

    def _draw(self, data: mujoco.MjData) -> np.ndarray:
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            None,
            self._view,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        mujoco.mjr_render(self._rect, self._scene, self._loaded['context'])
        pixels = np.empty((self.height, self.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._loaded['context'])
        return pixels[::-1]  # GL counts rows from the bottom

    def close(self) -> None:
        """Give the context back; safe to call twice."""
        self._finalizer()


def _free(gl, loaded: dict) -> None:
    if 'context' in loaded:
        gl.make_current()
        loaded.pop('context').free()
    gl.free()
